"""What a bundle holds beside graphs: the package as a wheel, a README for the machine it goes to, and the tar itself."""
