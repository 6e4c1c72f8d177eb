"""Charts show the names of files as they are."""

import numpy as np

from trainer.evaluate.charts import add_legend, new_figure, to_picture


def test_a_legend_names_every_line_as_its_file_is_named():
    figure = new_figure(300, 200)
    panel = figure.subplots()
    names = ["_v2", "a$b$c", "plain"]
    for height in range(len(names)):
        panel.plot([0, 1], [height, height])
    panel.axhline(0.5)

    add_legend(panel, names)

    texts = panel.get_legend().get_texts()
    assert [text.get_text() for text in texts] == names
    assert not any(text.get_parse_math() for text in texts)
    assert np.asarray(to_picture(figure)).shape == (200, 300, 3)
