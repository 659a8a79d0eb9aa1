package mount

import (
	"errors"
	"testing"
)

func TestDecide(t *testing.T) {
	blank := Content{Blank: true}
	data := Content{}
	of := func(kind string) Content { return Content{Type: kind} }
	for name, c := range map[string]struct {
		content Content
		wish    Wish
		plan    Plan
		err     error
	}{
		"blank":                          {blank, Wish{}, Plan{Ext4, true}, nil},
		"blank, ext4":                    {blank, Wish{Type: Ext4}, Plan{Ext4, true}, nil},
		"blank, XFS":                     {blank, Wish{Type: XFS}, Plan{XFS, true}, nil},
		"blank, ext3":                    {blank, Wish{Type: ext3}, Plan{}, ErrWrongType},
		"blank, read-only":               {blank, Wish{ReadOnly: true}, Plan{}, ErrReadOnly},
		"begun":                          {data, Wish{Begun: true}, Plan{Ext4, true}, nil},
		"begun, half a superblock":       {of(XFS), Wish{Type: XFS, Begun: true}, Plan{XFS, true}, nil},
		"begun, read-only":               {data, Wish{Begun: true, ReadOnly: true}, Plan{}, ErrReadOnly},
		"data":                           {data, Wish{}, Plan{}, ErrNotBlank},
		"data, read-only":                {data, Wish{ReadOnly: true}, Plan{}, ErrNotBlank},
		"partitions":                     {of("unknown data, probably partitions"), Wish{}, Plan{}, ErrNotBlank},
		"LVM":                            {of("LVM2_member"), Wish{}, Plan{}, ErrNotBlank},
		"encrypted":                      {of("crypto_LUKS"), Wish{Type: Ext4}, Plan{}, ErrNotBlank},
		"btrfs":                          {of("btrfs"), Wish{}, Plan{}, ErrNotBlank},
		"ext4":                           {of(Ext4), Wish{}, Plan{Ext4, false}, nil},
		"ext4 as asked":                  {of(Ext4), Wish{Type: Ext4}, Plan{Ext4, false}, nil},
		"ext4, read-only":                {of(Ext4), Wish{ReadOnly: true}, Plan{Ext4, false}, nil},
		"XFS, nothing asked":             {of(XFS), Wish{}, Plan{XFS, false}, nil},
		"ext3, which there may still be": {of(ext3), Wish{Type: ext3}, Plan{ext3, false}, nil},
		"XFS, ext4 asked":                {of(XFS), Wish{Type: Ext4}, Plan{}, ErrWrongType},
		"ext4, XFS asked":                {of(Ext4), Wish{Type: XFS}, Plan{}, ErrWrongType},
	} {
		t.Run(name, func(t *testing.T) {
			plan, err := Decide(c.content, c.wish)
			if plan != c.plan || !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
				t.Errorf("got %+v, %v; want %+v, %v", plan, err, c.plan, c.err)
			}
		})
	}
}
