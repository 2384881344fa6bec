"""Batches by index: the same however they are reached, of the size their stage says, and in nnU-Net's form."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform, blur_dimension
from hypothesis import given
from hypothesis import strategies as st
from prepared import CUBE, CUBE_PATCH, FLAT, FLAT_PATCH, NAME, SHORT, spec_of

from study import files
from study.batches import Batch, Batches, Item, RepeatableBlur, Schedule, make_loader
from study.curriculum import Curriculum
from study.datasets import data_paths
from study.trainer import Task, nnUNetTrainerPGPS
