"""What commands print, made of plain data.

May import: everything but commands.
"""
