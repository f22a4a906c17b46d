"""Who is trained on and who is not: data are split by person, always.

The lists are of the Face Research Lab London Set (DeBruine & Jones, 2017): every fifth of its sorted numbers to test,
four more to validate. All other people of a data set are trained on.
"""

TEST = ("005", "013", "022", "031", "044", "067", "086", "099", "105", "120", "127", "138")
"""London people that are never trained on nor validated on, so that texgan.evaluate can measure on them.

It doesn't read this list: it measures on whoever its weights know neither from training nor from validation.
"""

VALIDATION = ("017", "061", "101", "132")
"""London people that a learning curve is measured on while the weights are being learned."""


def split(clips, test=TEST, validation=VALIDATION):
    """Clips to train on, and clips to validate on; those of `test` are in neither."""
    training = [c for c in clips if c.info.identity not in {*test, *validation}]
    return training, [c for c in clips if c.info.identity in validation]
