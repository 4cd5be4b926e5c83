"""A benchmark and reproduction harness for self-supervised learning of images.

Importing this package costs nothing: it only lets torchvision import beside a CPU build of torch.
"""

from harness import torchvision_hook

torchvision_hook.install()
