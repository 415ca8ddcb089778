"""Texts to what a diffusion model is conditioned on: hidden states of a language model. torch comes with loading."""
