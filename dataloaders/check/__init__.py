"""Look at every file that a configuration names, and report all that is wrong with them at once.

    python -m dataloaders.check --config yamls/adashare/nyu_v2_3task.yml --set dataload.dataroot=FOLDER

A data set is listed as `parts`: all frames, or the images or texts of one domain (`formats`). Every sample of a part
is opened once (`readers`), by several processes (`inspection`), measured against what its tasks need (`targets`,
`measures`) and added to the `summary` of each of its splits. What splits (`memberships`) and all samples together
(`wholes`) show comes beside. The `findings` are told after `tables` and a `sheet` of pictures.

A data set that is not in `formats.FORMATS`, such as one's own, is checked through its samples.
"""
