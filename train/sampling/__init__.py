"""From noise to latents with a trained network: samplers, guidance, longer video, distillation."""
