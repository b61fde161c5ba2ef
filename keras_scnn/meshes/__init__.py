"""Faces as mesh files: OBJ, PLY and GLB.

One convention for all of them: imported with a program's default settings, the mesh is an upright
head of natural size that faces the viewer.

- **Unit.** One unit of a file is a meter, as in glTF 2.0 (3.4) and as Blender, Unity and three.js
  assume for formats without a unit. OBJ and PLY can be in 'cm' (Unreal Engine, Maya) or 'mm'
  (programs for 3D printing) instead.
- **Axes.** GLB and OBJ use the model frame of ``geometry.camera``: x to the viewer's right, y up,
  z towards the viewer, so the face looks to +z. That is glTF's frame, and what importers of OBJ
  expect. PLY uses (x, -z, y): z up, the face looks to -y, since importers of PLY do not convert
  coordinates, and z is up in Blender.

Each file states its unit and axes: in comments at the top of OBJ and PLY, in ``asset.extras`` of
GLB.
"""
