"""pgps-study: a hyperparameter study of Progressive Growing of Patch Size on nnU-Net v2."""

__version__ = "0.1.0"
