package script

import (
	"errors"
	"strings"
	"testing"
)

func TestUnquote(t *testing.T) {
	tests := map[string]struct {
		src, want string
		ok        bool
	}{
		"plain":             {`"abc"`, "abc", true},
		"empty":             {`""`, "", true},
		"escapes":           {`"\"\\\$\?\_\n\r\t\a\b\f\v"`, "\"\\$? \n\r\t\a\b\f\v", true},
		"hexadecimal":       {`"\41\0A\FF"`, "A\n\xff", true},
		"lower case is not": {`"\4a"`, "", false},
		"dollar vanishes":   {`"a$y b"`, "a b", true},
		"lone dollar stays": {`"a$"`, "a$", true},
		"utf-8":             {`"ä"`, "ä", true},
		"continued":         {"\"a\\\n   b\"", "ab", true},
		"not quoted":        {`abc`, "", false},
		"single quotes":     {`'abc'`, "", false},
		"not closed":        {`"abc`, "", false},
		"closed too early":  {`"a"b"`, "", false},
		"blank after":       {`"a" `, "", false},
		"unknown escape":    {`"\q"`, "", false},
		"command":           {`"$[:put a]"`, "", false},
		"expression":        {`"$(1+1)"`, "", false},
		"nothing":           {``, "", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, ok := Unquote(tt.src)
			if got != tt.want || ok != tt.ok {
				t.Errorf("Unquote(%s) = %q, %v; want %q, %v", tt.src, got, ok, tt.want, tt.ok)
			}
		})
	}
}

// FuzzTokenizer: any input is parsed or refused; nothing panics or loops, and
// errors point into the input.
func FuzzTokenizer(f *testing.F) {
	for _, s := range []string{
		`:put "a$b\"[ ]"`, `/box find where name="x" and !(size>1)`, `:if ($a->"b") do={:put 1} else={}`,
		`{a="b";{1;2}}`, `:foreach k,v in=[/box/find] do={ $f $k b=$v }`, "# c\n:put \\\n x", `"$[:put "$(1+"x")"]"`,
		`:local "a b" [[[((({{{`, `:onerror e in={:error 1} do={}`, `*1F,*2 10.0.0.1/8 1d2h 00:01:02 0x1f -5 !x`,
	} {
		f.Add(s)
	}
	menus := testMenus()
	f.Fuzz(func(t *testing.T, src string) {
		_, err := Parse(src, menus)
		var syntax *SyntaxError
		var incomplete *IncompleteError
		switch {
		case err == nil, errors.As(err, &incomplete):
		case errors.As(err, &syntax):
			if syntax.Line < 1 || syntax.Column < 1 || syntax.Line > strings.Count(src, "\n")+1 {
				t.Errorf("%v is outside of the input", err)
			}
		default:
			t.Errorf("unexpected error %v", err)
		}
		value, ok := Unquote(src)
		if !ok && value != "" {
			t.Errorf("Unquote(%q) = %q, false", src, value)
		}
	})
}
