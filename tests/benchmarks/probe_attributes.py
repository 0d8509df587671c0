"""Can a small network read every attribute off the renders? Trained and tested on different people.

    python tests/benchmarks/probe_attributes.py --output results/renderer-probe.md

One convolutional network with a head per attribute; its first convolution has stride 4. Each attribute is scored on the
held-out pictures in which it can be seen (the column says which), against always answering the majority class there.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from finegpr.attributes import IDENTITY_ATTRIBUTES, ILLUMINATION, SCENE, VIEWPOINT, WEATHER, Attribute
from finegpr.render.camera import SOURCE_RIG
from finegpr.render.person import make_person
from finegpr.render.picture import Shot, render_one

HEIGHT, WIDTH = 480, 200
NUM_VIEWPOINTS = 12
LABELS: tuple[Attribute, ...] = (
    Attribute(name="viewpoint", values=tuple(f"{30 * k}deg" for k in range(NUM_VIEWPOINTS)), circular=True),
    WEATHER,
    ILLUMINATION,
    SCENE,
    *IDENTITY_ATTRIBUTES,
)
COLUMN = {attribute.name: k for k, attribute in enumerate(LABELS)}
DARK = [ILLUMINATION.index(value) for value in ("midnight", "dawn", "night")]
VEILED = [WEATHER.index(value) for value in ("foggy", "blizzard")]


class Probe(nn.Module):
    """(n, 3, 480, 200) -> logits of all labels side by side."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, kernel, stride in ((3, 20, 7, 4), (20, 40, 3, 2), (40, 64, 3, 2), (64, 96, 3, 2)):
            layers += [
                nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d((8, 2)), nn.Flatten(), nn.Dropout(0.3))
        self.heads = nn.Linear(96 * 16, sum(len(attribute.values) for attribute in LABELS))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.heads(self.features(images))
        return logits


def draw(identities: range, per_identity: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 (n, 3, 480, 200) pictures under uniform conditions, and their label indices (n, labels)."""
    random = np.random.default_rng(seed)
    images, labels = [], []
    for identity in identities:
        person = make_person(seed, "minigpr", identity)
        for k in range(per_identity):
            v, w, i, s = (int(random.integers(n)) for n in (NUM_VIEWPOINTS, 7, 7, 9))
            shot = Shot(
                viewpoint=30.0 * v,
                weather=WEATHER.values[w],
                illumination=ILLUMINATION.values[i],
                scene=SCENE.values[s],
                seed=(seed, identity, k),
            )
            images.append(render_one(person, shot, SOURCE_RIG, height=HEIGHT, width=WIDTH)[0].transpose(2, 0, 1))
            worn = [attribute.index(person.attributes[attribute.name]) for attribute in IDENTITY_ATTRIBUTES]
            labels.append([v, w, i, s, *worn])
    return torch.from_numpy(np.stack(images)), torch.tensor(labels)


def scaled(images: torch.Tensor) -> torch.Tensor:
    return images.float().div_(255).sub_(0.35).div_(0.25)


def train(images: torch.Tensor, labels: torch.Tensor, epochs: int) -> Probe:
    torch.manual_seed(0)
    net = Probe()
    steps = epochs * (len(images) // 32)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    sizes = [len(attribute.values) for attribute in LABELS]
    for _ in range(epochs):
        for rows in torch.randperm(len(images))[: len(images) // 32 * 32].split(32):
            batch = torch.roll(images[rows], (int(torch.randint(-10, 11, ())), int(torch.randint(-8, 9, ()))), (2, 3))
            losses = [
                nn.functional.cross_entropy(logits, labels[rows, k])
                for k, logits in enumerate(net(scaled(batch)).split(sizes, dim=1))
            ]
            loss = torch.stack(losses).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval()


def visible(labels: np.ndarray) -> dict[str, tuple[str, np.ndarray]]:
    """Per label: a sentence on where it can be seen, and those rows."""

    def column(name: str) -> np.ndarray:
        return labels[:, COLUMN[name]]

    everywhere = np.ones(len(labels), bool)
    clear = ~np.isin(column("weather"), VEILED)
    lit = clear & ~np.isin(column("illumination"), DARK)
    front = np.abs((column("viewpoint") * 30 - 90 + 180) % 360 - 180) <= 60
    seen = dict.fromkeys(("viewpoint", "weather", "illumination"), ("everywhere", everywhere))
    seen["scene"] = ("clear air", clear)
    seen |= {attribute.name: ("lit, clear air", lit) for attribute in IDENTITY_ATTRIBUTES}
    seen["glasses"] = ("lit, clear air, front within 60deg", lit & front)
    return seen


def table(predicted: np.ndarray, labels: np.ndarray) -> list[str]:
    lines = [
        "| attribute | classes | seen in | pictures | majority | accuracy |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, (where, rows) in visible(labels).items():
        k = COLUMN[name]
        truth = labels[rows, k]
        majority = np.bincount(truth).max() / len(truth)
        accuracy = float((predicted[rows, k] == truth).mean())
        classes = len(LABELS[k].values)
        lines.append(f"| {name} | {classes} | {where} | {len(truth)} | {majority:.0%} | {accuracy:.0%} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("results/renderer-probe.md"))
    parser.add_argument("--identities", type=int, default=600)
    parser.add_argument("--epochs", type=int, default=14)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    start = time.monotonic()
    images, labels = draw(range(1, arguments.identities + 1), 3, seed=0)
    held_out = range(5001, 5151)
    test_images, test_labels = draw(held_out, 4, seed=0)
    drawn = time.monotonic() - start
    net = train(images, labels, arguments.epochs)
    sizes = [len(attribute.values) for attribute in LABELS]
    with torch.no_grad():
        logits = torch.cat([net(scaled(batch)) for batch in test_images.split(64)])
    predicted = torch.stack([part.argmax(1) for part in logits.split(sizes, dim=1)], dim=1).numpy()
    lines = table(predicted, test_labels.numpy())
    took = time.monotonic() - start
    text = "\n".join([
        "# Renderer probe",
        "",
        f"A small convolutional network (4 layers, stem of stride 4) reads the attributes off {HEIGHT}x{WIDTH}",
        f"renders: {len(images)} training pictures of {arguments.identities} people, {len(test_images)} test pictures of "
        f"{len(held_out)} other people, {arguments.epochs} epochs, seed 0.",
        f"One core, {drawn:.0f} s of drawing and {took - drawn:.0f} s of training.",
        f"Viewpoints are {NUM_VIEWPOINTS} of the {len(VIEWPOINT.values)}, 30deg apart.",
        "",
        *lines,
        "",
    ])  # fmt: skip
    arguments.output.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
