"""The web app: one page for photos, clips and the camera, served from this machine or as a static site."""
