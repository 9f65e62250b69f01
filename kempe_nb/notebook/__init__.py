"""What a chapter needs besides mathematics: profile, claims, sliders, figures, data."""
