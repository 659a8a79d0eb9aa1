// Package render writes the items of a menu as RouterOS's console prints them:
// print detail, the brief table, terse lines and one-item menus.
//
// It knows layout only: which flags and properties a menu has is given to it
// as a View. It imports internal/script for the values and nothing else of ours.
package render
