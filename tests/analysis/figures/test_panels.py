from analysis.figures.panels import rows_and_columns


def test_panels_fill_their_rows() -> None:
    shapes = {panels: rows_and_columns(panels) for panels in range(1, 17)}
    assert [shapes[panels] for panels in (1, 4, 5, 6, 8, 9)] == [(1, 1), (1, 4), (2, 3), (2, 3), (2, 4), (3, 3)]
    for panels, (rows, columns) in shapes.items():
        assert columns <= 4 and panels <= rows * columns < panels + rows, panels
