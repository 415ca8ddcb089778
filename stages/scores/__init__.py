"""Scores of clips from models: embeddings, aesthetics, text area, classifiers. Of other rooms, imports pretrained."""
