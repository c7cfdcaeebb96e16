from __future__ import annotations

from natadv.search.attack_files import file_part


def test_no_two_classes_share_a_file_and_none_leaves_its_folder():
    names = ["a b", "a-b", "a/b", "a  b", "../../a", "a__b", "É", "e", "猫", "犬", "[x]", "w" * 300]
    parts = [file_part(name) for name in [*names, "w" * 301]]

    assert len(set(parts)) == len(parts)
    assert file_part("polar bear") == "polar-bear"
    assert all("/" not in part and not part.startswith(".") for part in parts)
    assert max(map(len, parts)) < 100
