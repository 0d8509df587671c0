"""mmd_posterior: the squared distance of mean posteriors, so that only what tells attributes apart is compared.

A gap between renderer and camera moves the sketches along many directions that say nothing of the attributes, and
matching sketches picks odd values to make up for it. The posteriors of attribute classifiers hardly see those, and are
bounded where they do. Subset and target are blurred by the same mistakes of the classifiers, so that none is corrected.
"""

import numpy as np

from search.measured import Measured
from search.objectives.attribute_classifier import read_attributes, softmax
from search.objectives.embedding import CellEmbedding, embed_means
from search.objectives.samples import Samples


def embed_posterior(measured: Measured) -> CellEmbedding:
    """The posteriors of all attributes side by side; a source image's come from classifiers trained on other people.

    Raises as ``read_attributes``.
    """
    readings = read_attributes(measured)
    images = Samples(
        values=np.concatenate([softmax(each.of_source) for each in readings.attributes], axis=1),
        names=(),
        cell=readings.cell,
        identity=readings.person,
        num_cells=len(measured.cells),
    )
    of_target = [np.mean([softmax(logits) for logits in each.of_target], axis=0) for each in readings.attributes]
    return embed_means(images, np.concatenate(of_target, axis=1), measured.cells)
