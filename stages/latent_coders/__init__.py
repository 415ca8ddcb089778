"""VAEs behind one small interface: our own, and the published ones through diffusers. torch comes with loading."""
