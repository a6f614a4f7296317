"""The server behind other programs' windows: `geosam serve --stdio`, see docs/protocol.md."""
