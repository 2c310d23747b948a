"""The mathematics of denoising diffusion, in torch alone: no files, no printing, no globals."""
