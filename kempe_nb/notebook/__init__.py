"""What a lesson needs besides mathematics: profile, claims, results, cache, sliders, figures."""
