"""The part of the standard library that code may import: modules are loaded when the component is built, for at run time
there is no file system to load them from."""

import abc, argparse, array, ast, base64, binascii, bisect, calendar, cmath, collections, collections.abc, colorsys  # noqa: E401
import configparser, contextlib, copy, csv, dataclasses, datetime, decimal, difflib, enum, fnmatch, fractions  # noqa: E401
import functools, glob, graphlib, hashlib, heapq, hmac, html, html.parser, inspect, io, ipaddress, itertools, json  # noqa: E401
import keyword, locale, logging, math, numbers, operator, os, os.path, pathlib, pickle, platform, pprint, queue  # noqa: E401
import random, re, reprlib, sched, secrets, shlex, statistics, string, struct, sys, tempfile, textwrap, time  # noqa: E401
import timeit, tokenize, tomllib, traceback, types, typing, unicodedata, unittest, urllib.parse, uuid, warnings  # noqa: E401
import weakref, xml.etree.ElementTree, zlib, zoneinfo  # noqa: E401
import asyncio, concurrent.futures, encodings.ascii, encodings.cp1252, encodings.idna, encodings.latin_1  # noqa: E401
import encodings.utf_16, encodings.utf_8_sig  # noqa: E401
