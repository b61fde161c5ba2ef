"""From photos of a person to a texture of the face model.

Each photo is projected onto the texture map where it shows the face (``views``), its lighting is
estimated and removed (``light``), and it is segmented (``skin``) into skin, the brows, eyes, lips
and beard, which belong to the person, scalp hair, and anything that hides the face. What shows the
person is blended without seams (``blending``) over its mirror image, and both over plain skin in
the person's color (``painting``). ``texture`` has the public functions.
"""
