"""The commands of `caption`, a module each but for those that score: thin skins over the rooms."""
