"""What `export` prints: the file, what it takes, and how it agrees with the network."""

from typing import TYPE_CHECKING

from cmtscale.cli.console import Column, print_table, results

if TYPE_CHECKING:
    from cmtscale.deploy.export import Exported


def print_exported(exported: "Exported") -> None:
    """Print the file, its input, and a row for each batch that it was compared on."""
    from cmtscale.deploy.compare import TOLERANCE

    out = results()
    sides = exported.sides
    kind = exported.format + (f", opset {exported.opset}" if exported.opset else "")
    fixed = bool(sides.fixed_because)
    size = f"{sides.own_px}, {sides.own_px}" if fixed else "height, width"
    out.print(f"{exported.path}: {kind}, {exported.size_bytes / 1e6:.1f} MB", markup=False)
    out.print(f"images: float32 (batch, {exported.channels}, {size}), preprocessed", markup=False)
    if fixed:
        out.print(f"sides are fixed at {sides.own_px} px: {sides.fixed_because}", markup=False)
    else:
        out.print(
            f"height and width are multiples of {sides.step_px} from {sides.least_px} px on; "
            f"trained at {sides.own_px} px"
        )
    out.print(f"logits: float32 (batch, {exported.classes})", markup=False)
    columns = [Column("batch"), Column("px"), Column("difference"), Column("largest logit")]
    rows = [
        [
            str(agreement.batch),
            f"{agreement.height_px}x{agreement.width_px}",
            f"{agreement.largest_difference:.1e}",
            f"{agreement.largest_logit:.3g}",
            f"{agreement.same_class} of {agreement.batch}",
        ]
        for agreement in exported.agreements
    ]
    print_table(out, [*columns, Column("same class")], rows)
    out.print(
        f"logits on noise, against the trained network; refused beyond {TOLERANCE:g} of the largest"
    )
