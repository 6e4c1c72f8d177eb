.PHONY: check fix test

check:
	ruff format --check .
	ruff check .
	pyright
	python -m pytest

fix:
	ruff check --fix .
	ruff format .

test:
	python -m pytest
