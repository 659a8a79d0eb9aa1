// Package script is a small interpreter for the RouterOS 7 console language:
// lexer, parser, syntax tree and evaluator.
//
// It knows the language and nothing of any menu. Menus are given to the parser
// as data (Menu, Command) because RouterOS resolves paths, commands and
// parameter names while it parses: a script with a bad name does not start.
// Menu commands are carried out by a Host.
//
// The whole script is parsed before anything runs; so a SyntaxError is never
// seen by :onerror. Input that ends inside a quote or a bracket is an
// IncompleteError: a console would wait for the rest.
//
// It imports the standard library only.
package script
