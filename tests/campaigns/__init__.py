"""Campaigns: random programs by the thousand, for hours if need be."""
