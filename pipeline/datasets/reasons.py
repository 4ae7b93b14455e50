"""Reasons: what the keys of captions.json mean, in words for users."""

DROPPED = {
    "photo_not_there": "no such photo in the photo folder",
    "photo_of_other_type": "the file is no JPEG, PNG or WebP photo",
    "photo_name_ambiguous": "the name fits more than one photo, or two names fit one photo",
    "photo_in_no_split": "no split list has the photo",
    "unsafe_name": "the name leads out of the photo folder",
    "malformed": "the entry is not in the file's form",
    "wrong_type": "the caption is not text",
    "empty_caption": "the caption is empty",
    "repeated_row": "the row repeats an earlier one",
    "nothing_left_by_cleaning": "no word is left after cleaning",
}
REPAIRED = {
    "photo_name": "the photo has almost that name, and nothing else could be meant",
    "stray_suffix": "the photo's name has no such number at its end",
    "byte_order_mark": "the file starts with a byte order mark",
    "no_byte_order_mark": "UTF-16 or UTF-32 without a byte order mark",
    "broken_utf16": "half characters in UTF-16 or UTF-32",
    "not_utf8": "lines with bytes that are not UTF-8, read as Windows-1252",
    "crlf_line_ends": "line ends from Windows",
    "lone_cr_line_ends": "line ends from old Macs",
    "unquoted_comma": "a comma in a caption without quotes",
    "open_quote": "a quote that is never closed ends with its line",
    "nul_characters": "NUL characters became spaces",
    "lone_surrogates": "half characters were replaced",
}
NOTED = {
    "same_wording": "a photo's caption repeats another one of it",
    "non_ascii": "captions with letters beyond A to Z",
    "reused_number": "one number for two captions",
    "stray_suffix_not_there": "no such photo, with or without the number at its name's end",
    "photo_in_two_splits": "two lists have the photo; test goes before dev, dev before train",
    "split_list_missing": "no list for that split",
    "unknown_split": "a split that is none of train, restval, val and test",
    "malformed_image_entry": "an entry of images without id or file name, or with a second id",
    "same_photo_in_two_splits": "photos of equal bytes in different splits: scores of the test "
    "photos among them say nothing",
    "markup": "most captions have markup, or the markers of another tool",
}
