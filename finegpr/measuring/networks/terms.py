"""The terms of every network's distance, apart from the networks because measurements are read without torch."""

from finegpr.weighing import Terms

VGG19_TERMS = Terms(style=("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"), content=("content",))
LITE0_TERMS = Terms(style=("stage1", "stage2", "stage3", "stage4", "stage5"), content=("content",))
