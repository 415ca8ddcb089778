"""`clipmill train`: the data of a training run, its progress and pictures. Works on train, loader and datasets."""
