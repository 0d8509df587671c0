"""The words that errors share."""

from finegpr.errors import did_you_mean


def test_the_nearest_known_name_is_proposed_or_else_what_there_is() -> None:
    known = ("index", "measure", "search")
    assert did_you_mean("serach", known) == "did you mean 'search'?"
    assert did_you_mean("xyz", known) == ""
    assert did_you_mean("xyz", known, otherwise="verbs: index") == "verbs: index"
    assert did_you_mean("mexxxre", known, otherwise="none") == "none"
    assert did_you_mean("mexxxre", known, otherwise="none", cutoff=0.4) == "did you mean 'measure'?"


def test_several_names_come_nearest_first_without_quotes() -> None:
    assert did_you_mean("CMAS", ("DE", "CMA", "FCMAs", "CMAES"), most=2) == "did you mean CMAES, CMA?"
    assert did_you_mean("DEE", ("DE", "CMA"), most=3) == "did you mean DE?"


def test_another_word_is_not_near_and_a_part_of_the_words_is() -> None:
    keys = ("seed", "num_identities", "images_per_identity", "viewpoints", "height", "width", "quality", "masks")
    assert did_you_mean("nonsense", keys) == ""
    assert did_you_mean("colour", keys) == ""
    assert did_you_mean("widht", keys) == "did you mean 'width'?"
    assert did_you_mean("images", keys) == "did you mean 'images_per_identity'?"
    assert did_you_mean("image", ("image_size", "imagery")) == "did you mean 'imagery'?"
