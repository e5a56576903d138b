"""Raw downloads -> the formats that the data sets are read from.

    python -m dataloaders.prepare nyu_v2 --labeled nyu_depth_v2_labeled.mat --splits splits.mat \\
        --classes classMapping40.mat data/nyu_v2
    python -m dataloaders.prepare cityscapes RAW data/cityscapes
    python -m dataloaders.prepare taskonomy RAW
    python -m dataloaders.prepare domainnet RAW

One module per data set says what its download holds and what becomes of it; `surface_normals` fits NYU v2's normals
to its depth; `output` holds the habits of all: what was made stays made, what is not whole is not there, what others
put into a folder is left alone.
"""
