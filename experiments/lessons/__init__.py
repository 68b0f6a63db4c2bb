"""Interactive lessons: one page, lessons.html, that computes everything itself and works offline.

page.html is its text, style.css its style, script/ its code, and `_content` what is computed with jaxcnn.
"""
