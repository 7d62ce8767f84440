"""The twelve standard leads, their order, and the named subsets of the paper's protocol."""

from collections.abc import Sequence

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""The standard order, which every array of this project with a lead axis has."""

LEAD_SETS: dict[int, tuple[int, ...]] = {
    12: tuple(range(12)),
    6: (0, 1, 2, 3, 4, 5),
    3: (0, 1, 7),
    2: (0, 1),
    1: (0,),
}
"""Lead subsets by size, as positions in `LEADS` (Oh et al. 2022; PhysioNet/CinC Challenge 2021)."""

_POSITION = {name.lower(): position for position, name in enumerate(LEADS)}


def lead_position(lead: str | int) -> int:
    """Return where a lead stands in `LEADS`; names count in any case.

    Raises ValueError for a name that is no standard lead, or a number outside 0..11.
    """
    if isinstance(lead, int):
        if 0 <= lead < len(LEADS):
            return lead
    elif lead.strip().lower() in _POSITION:
        return _POSITION[lead.strip().lower()]
    raise ValueError(f"expected one of {', '.join(LEADS)} or a number from 0 to 11, found {lead!r}")


def lead_positions(leads: Sequence[str | int] | None) -> tuple[int, ...]:
    """Return the positions of the chosen leads in `LEADS`; None chooses all twelve."""
    if leads is None:
        return LEAD_SETS[12]
    positions = tuple(lead_position(lead) for lead in leads)
    if not positions or len(set(positions)) != len(positions):
        raise ValueError(f"expected different leads, at least one, found {list(leads)!r}")
    return positions
