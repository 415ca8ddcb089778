"""Text encoders: captions and prompts to hidden states. Of other rooms, imports pretrained; torch only to load."""
