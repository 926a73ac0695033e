"""Writes the held-out digits as files for the clients in examples/clients.

    python -m examples.digits.export DIRECTORY

    images.npy      float32 [n,8,8], the levels 0 to 16, as the model takes them
    labels.npy      int64 [n,1]
    labels.txt      the names of the ten classes
    png/, png.txt   the images with the levels spread over 0 to 255, so that they can be seen, and the list of them
    jpeg/, jpeg.txt the same as JPEG

The network has never seen them: train.py says how they are chosen. Wants the packages that training wants.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from examples.digits import png, train

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
JPEG_QUALITY = 95


def write_arrays(directory: Path, images: train.Floats, labels: train.Labels) -> None:
    """The numpy files and the names."""
    np.save(directory / "images.npy", images)
    np.save(directory / "labels.npy", labels[:, None])
    (directory / "labels.txt").write_text("\n".join(NAMES) + "\n", encoding="utf-8")


def write_pictures(directory: Path, kind: str, images: train.Floats, labels: train.Labels) -> None:
    """A file an image in the format `kind`, png or jpeg, and a list with a line for each."""
    (directory / kind).mkdir(exist_ok=True)
    lines = []
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        name = f"{kind}/{number:03}.{kind}"
        samples = np.round(image * 255 / png.MAX_LEVEL).astype(np.uint8)
        Image.fromarray(samples).save(directory / name, quality=JPEG_QUALITY)
        lines.append(f"{name} {label}\n")
    (directory / f"{kind}.txt").write_text("".join(lines), encoding="utf-8")


def export(directory: Path, count: int) -> int:
    """Write the first `count` held-out digits; how many there were. Raises OSError."""
    split = train.load_split()
    images, labels = split.test_images[:count], split.test_labels[:count]
    directory.mkdir(parents=True, exist_ok=True)
    write_arrays(directory, images, labels)
    for kind in ("png", "jpeg"):
        write_pictures(directory, kind, images, labels)
    return len(images)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Write the held-out digits as files for the example clients."
    )
    parser.add_argument("directory", type=Path, help="made if it is not there")
    parser.add_argument("--count", type=int, default=450, help="how many, at the most (450, which is all)")
    arguments = parser.parse_args()
    if arguments.count < 1:
        parser.error("--count is 1 or more")
    try:
        count = export(arguments.directory, arguments.count)
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {count} images into {arguments.directory}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
