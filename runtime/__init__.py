"""Engines that run a schema: `nprdsl.runtime.local` (torch) is embedded."""
