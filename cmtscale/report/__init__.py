"""Result frames to figures and tables; never imports torch."""
