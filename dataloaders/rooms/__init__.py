"""Furnished rooms and pictures of them, drawn at random: pieces -> furniture -> scene -> rays -> view."""
