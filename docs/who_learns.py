"""The README's picture: ``python docs/who_learns.py`` trains eight networks of each kind and draws who-learns.svg.

Half a minute on two cores; the same seeds give the same picture.
"""

from pathlib import Path

PICTURE = Path(__file__).with_name("who-learns.svg")
# claim, what it is called, colour and dashes: lines differ by more than colour
KINDS = (
    ("scaled-standardise", "linear, scaled input, plain SGD", "#7a3ea8", "2 3"),
    ("residual-4", "4 residual layers", "#1f5fa8", ""),
    ("linear-4", "4 linear layers", "#17662f", "8 3"),
    ("plain-relu-4-seed", "4 ReLU layers, as in the question", "#a3210f", ""),
)
STYLE = """<style>
text { font: 12px sans-serif; fill: #333 } path { fill: none; stroke-width: 1.2; stroke-opacity: .8 }
.tick { stroke: #e4e4e0; stroke-width: 1 } .near { fill: #dff0e3 } .failed { fill: #fae5df } .name { fill: #555 }
</style><rect width="100%" height="100%" fill="#fff"/>"""
TITLE = "Test error of eight networks of each of four kinds over optimizer steps: three kinds learn, ReLU does not"


def picture(outcomes):
    """SVG of every replica's curve, with a line of legend a kind."""
    from identity_props.report.pictures import BOTTOM, HEIGHT, LEFT, WIDTH, Axes
    from identity_props.task.metrics import FAILED, NEAR_IDENTITY

    axes = Axes((0.5, 5000), (1e-6, 1e2), ("optimizer steps", "test error (FVU)"))
    drawn = [
        STYLE,
        axes.band(1e-6, NEAR_IDENTITY, "near", "near-identity"),
        axes.band(FAILED, 1e2, "failed", "failed"),
        axes.frame(),
    ]
    rules = []
    for k, (claim, name, colour, dashes) in enumerate(KINDS):
        rules.append(f".k{k} {{ stroke: {colour}; stroke-dasharray: {dashes or 'none'} }}")
        steps, replicas = outcomes[claim].curves
        at = [max(step, 0.5) for step in steps]
        drawn += [axes.line(zip(at, fvu, strict=True), f"k{k}") for fvu in replicas]
        y = HEIGHT + 16 + 18 * k
        drawn.append(
            f'<path class="k{k}" d="M{LEFT} {y - 4}h36"/><text x="{LEFT + 44}" y="{y}">{name}</text>'
        )
    height = HEIGHT + 18 * len(KINDS) + BOTTOM // 4
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH * 1.5:.0f}" role="img">'
    return f"{head}<title>{TITLE}</title><style>{' '.join(rules)}</style>{''.join(drawn)}</svg>\n"


def main():
    from identity_props import CLAIMS, digits, judge_all

    claims = [CLAIMS[name] for name, *_ in KINDS]
    outcomes = {outcome.claim.name: outcome for outcome in judge_all(claims, digits(7))}
    PICTURE.write_text(picture(outcomes), encoding="utf-8")


if __name__ == "__main__":
    main()
