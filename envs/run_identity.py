"""Which settings make a run the one that it is, and which may change while it is stopped."""

import hashlib
import json

from utils.config import TestingConfig, flat_settings

# The rest of a run follows new values of these. The others say what the network is, in which order it sees the data, or
# when which phase begins.
CHANGEABLE = frozenset(
    [
        "exp_name",
        "seed",  # a list of many; the one that counts is compared by itself
        "imagenet_weights",
        "retrain_from_pl",  # as the weights file above, it matters before the first step only
        "lambdas",
        "paths.log_dir",
        "paths.result_dir",
        "paths.checkpoint_dir",
        "test.which_iter",
        "dataload.dataroot",
        "dataload.num_workers",
        "dataload.cache",
        *(
            f"train.{key}"
            for key in (
                "total_iters",
                "retrain_total_iters",
                "lr",
                "backbone_lr",
                "fc_lr",
                "policy_lr",
                "decay_lr_freq",
                "decay_lr_rate",
                "decay_fc_lr_freq",
                "decay_fc_lr_rate",
                "policy_decay_lr_freq",
                "policy_decay_lr_rate",
                "decay_temp",
                "decay_temp_freq",
                "reg_w",
                "reg_w_hamming",
                "print_freq",
                "val_freq",
                "eval_batches",
                "save_freq",
                "max_bad_steps",
                "precision",
                "tf32",
                "compile",
                "checkpointing",
                "step_in_backward",
                "sync_bn",
                "resume",
                "retrain_resume",
                "policy_iter",
                "which_iter",
            )
        ),
    ]
)


def fingerprint(config: TestingConfig) -> str:
    """16 hexadecimal digits, the same for configurations that differ in `CHANGEABLE` keys alone."""
    settled = {key: value for key, value in flat_settings(config).items() if key not in CHANGEABLE}
    return hashlib.sha256(json.dumps(settled, sort_keys=True).encode()).hexdigest()[:16]
