package render

import (
	"strings"
	"testing"

	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros/internal/script"
)

func TestText(t *testing.T) {
	tests := []struct {
		v    script.Value
		kind Kind
		want string
	}{
		{script.Number(0), Grouped, "0"},
		{script.Number(999), Grouped, "999"},
		{script.Number(1099511627776), Grouped, "1 099 511 627 776"},
		{script.Number(-1234), Grouped, "-1 234"},
		{script.Number(1 << 40), Rounded, "1024.0GiB"},
		{script.Number(50 << 30), Rounded, "50.0GiB"},
		{script.Number(3 << 19), Rounded, "1.5MiB"},
		{script.Number(100), Rounded, "100"},
		{script.Number(8), Percent, "8%"},
		{script.Bool(true), Plain, "yes"},
		{script.Bool(false), Quoted, "no"},
		{script.String(`a"b\$`), Quoted, `"a\"b\\\$"`},
		{script.String("-"), Plain, "-"},
	}
	for _, tt := range tests {
		if got := Text(tt.v, tt.kind); got != tt.want {
			t.Errorf("Text(%v, %d) = %s, want %s", tt.v, tt.kind, got, tt.want)
		}
	}
}

func TestWrap(t *testing.T) {
	tests := map[string]struct {
		words []string
		want  string
	}{
		"fits":              {[]string{"aa", "bb"}, "> aa bb"},
		"next line":         {[]string{"aaaa", "bbbb"}, "> aaaa|  bbbb"},
		"broken in a token": {[]string{"aaaabbbbcccc"}, "> aaaabb|  bbcccc"},
		"long after short":  {[]string{"x", "aaaabbbbcc"}, "> x|  aaaabb|  bbcc"},
		"nothing":           {nil, "> "},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := strings.ReplaceAll(strings.TrimSuffix(wrap("> ", tt.words, 8), eol), eol, "|")
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	if got := Wrap("abcdef\r\ngh\r\n", 4); got != "abcd\r\nef\r\ngh\r\n" {
		t.Errorf("Wrap: %q", got)
	}
}
