"""The data plane: recipes, catalog, engines, datasets, training and sampling. May import stages, train and models."""
