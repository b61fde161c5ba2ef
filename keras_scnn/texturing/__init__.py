"""Photos of a person as a texture of the face model.

Each photo is laid onto the texture map where it shows the face (``views``), its light is estimated
and taken out (``light``), and what it shows is segmented (``skin``): skin, the brows, eyes, lips
and beard, which are the person too, scalp hair, and all that hides a face. What is left is laid
over its mirror image, and both over a plain skin in the person's color (``painting``), without a
seam (``blending``). ``texture`` has the functions to call.
"""
