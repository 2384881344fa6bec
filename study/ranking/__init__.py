"""Ranking of a fold's training cases by image similarity, most dissimilar first: what Progressive Deep Learning needs.

Every training case is registered to one common reference and laid on one common grid. There it is compared with all
others, or with the reference alone, by four measures: MSE, PSNR, SSIM and UQI. What is computed once is kept beside the
preprocessed data and read by every trial of the fold. Validation cases are never opened.
"""
