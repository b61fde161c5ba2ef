"""Faces as mesh files: OBJ, PLY and GLB.

One policy for all of them: what a program shows after a plain import, its default settings kept,
is an upright head of natural size that faces the viewer.

- **Unit.** One unit of a file is a meter, as in glTF 2.0 (3.4) and as Blender, Unity and three.js
  take a file that names none. OBJ and PLY can have 'cm' (Unreal Engine, Maya) or 'mm' (programs
  for 3D printing) instead.
- **Axes.** GLB and OBJ are the model frame of ``geometry.camera``: x to the viewer's right, y up,
  z towards the viewer, so the face looks to +z. That is glTF's frame, and what importers of OBJ
  expect. PLY is (x, -z, y) of it: z up, the face looks to -y, since importers of PLY take
  coordinates as they are, and z is up in Blender.

A file says of itself what it is: in comments at the top of OBJ and PLY, in ``asset.extras`` of GLB.
"""
