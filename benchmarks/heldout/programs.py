"""Programs written by hand, in the spirit of what a proposer writes: strings, lists, dicts, recursion, algorithms.

Each is a function of plain data. The build renames it to `f`, takes its docstring as the hint of an induction task, and
draws arguments from the sources that its decorator names. Easy ones first; their bands are measured, not given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.heldout import inputs as i

PROGRAMS: dict[str, Callable[..., str]] = {}  # name -> draws the text of a call's arguments


def given(*sources: i.Source) -> Callable[[Any], Any]:
    """The sources of a program's arguments, one for each."""

    def keep(program: Any) -> Any:
        PROGRAMS[program.__name__] = i.call(*sources)
        return program

    return keep


# One operation or two -----------------------------------------------------------------------------------------------


@given(i.word)
def shout(text):
    """Says it louder."""
    return text.upper() + "!"


@given(i.sentence(2, 3))
def headline(text):
    """Capitalises every word."""
    return text.title()


@given(i.sentence(3, 5, i.short_word))
def split_words(text):
    """The words of a sentence."""
    return text.split()


@given(i.words(2, 4, i.short_word))
def dashed(words):
    """Puts dashes between the words."""
    return "-".join(words)


@given(i.word)
def backwards(text):
    """Reads it from the end."""
    return text[::-1]


@given(i.word)
def every_other_letter(text):
    """Keeps the letters in even places, counted from 0."""
    return text[::2]


@given(i.word, i.integer(2, 4))
def echo(text, times):
    """Repeats a text."""
    return text * times


@given(i.word, i.one_of("a", "e", "o"), i.one_of("_", "*", "0"))
def swap_letter(text, old, new):
    """Replaces one letter by another sign."""
    return text.replace(old, new)


@given(i.name, i.integer(11, 88))
def introduce(name, age):
    """Introduces a person."""
    return f"{name} is {age}"


@given(i.word)
def first_and_last(text):
    """The first and the last letter."""
    return text[0] + text[-1]


@given(i.numbers(3, 5, 2, 19))
def sum_with_bonus(numbers):
    """The total, and ten more."""
    return sum(numbers) + 10


@given(i.numbers(4, 6, 1, 40, unique=True))
def spread(numbers):
    """The distance between the largest and the smallest."""
    return max(numbers) - min(numbers)


@given(i.numbers(4, 6, 1, 30, unique=True))
def from_large_to_small(numbers):
    """Puts the largest first."""
    return sorted(numbers, reverse=True)


@given(i.numbers(4, 6, 1, 9), i.integer(10, 40))
def append_one(numbers, last):
    """Adds a number at the end."""
    return numbers + [last]


@given(i.numbers(5, 7, 1, 30))
def without_ends(numbers):
    """Drops the first and the last."""
    return numbers[1:-1]


@given(i.numbers(3, 5, 1, 30))
def swap_halves_of_two(numbers):
    """Moves the first two numbers to the end."""
    return numbers[2:] + numbers[:2]


@given(i.integer(12, 99), i.integer(3, 9))
def quotient_and_rest(a, b):
    """Whole quotient and remainder."""
    return divmod(a, b)


@given(i.integer(3, 19), i.integer(2, 9))
def rectangle(width, height):
    """Area and perimeter of a rectangle."""
    return (width * height, 2 * (width + height))


@given(i.integer(17, 250))
def in_binary(n):
    """The number in base two."""
    return bin(n)[2:]


@given(i.integer(2, 14))
def cube_less_one(n):
    """One less than the cube."""
    return n**3 - 1


@given(i.mapping(i.words(2, 4, i.name), i.integer(1, 60)), i.name)
def age_of(ages, name):
    """Looks a person up; 100 when unknown."""
    return ages.get(name, 100)


@given(i.mapping(i.words(3, 5, i.short_word), i.integer(1, 30)))
def animals_by_name(counts):
    """The keys in the order of the alphabet."""
    return sorted(counts)


@given(i.mapping(i.words(2, 4), i.integer(2, 25)))
def price_of_all(prices):
    """What everything costs together."""
    return sum(prices.values())


@given(i.pair(i.word, i.integer(2, 30)))
def turn_around(pair):
    """Swaps the two halves of a pair."""
    return (pair[1], pair[0])


@given(i.letters(7, 12, "abc"), i.one_of("a", "b", "ab", "c"))
def pieces(text, sign):
    """Cuts the text at every sign."""
    return text.split(sign)


@given(i.words(3, 5))
def longest_word(words):
    """The longest of the words, the first of them when there are several."""
    return max(words, key=len)


@given(i.word, i.integer(9, 13))
def framed(text, width):
    """Centres the text between stars."""
    return text.center(width, "*")


@given(i.numbers(3, 4, 1, 9), i.numbers(3, 4, 1, 9))
def zip_them(left, right):
    """Pairs of what stands in the same place."""
    return list(zip(left, right))


@given(i.integer(2, 9), i.integer(20, 60), i.integer(3, 9))
def stepping(start, end, step):
    """Counts up in steps."""
    return list(range(start, end, step))


@given(i.word, i.short_word)
def sandwich(outer, inner):
    """Puts one text into the middle of another."""
    half = len(outer) // 2
    return outer[:half] + inner + outer[half:]


# A line or two ------------------------------------------------------------------------------------------------------


@given(i.sentence(3, 5))
def initials(text):
    """The first letters of the words, in capitals."""
    return "".join(word[0] for word in text.split()).upper()


@given(i.words(3, 5))
def word_lengths(words):
    """How long every word is."""
    return {word: len(word) for word in words}


@given(i.numbers(4, 6, 1, 12))
def odd_squares(numbers):
    """Squares of the odd numbers."""
    return [n * n for n in numbers if n % 2 == 1]


@given(i.words(3, 4, i.short_word))
def numbered(words):
    """Gives every word its number, from 1."""
    return [f"{k}. {word}" for k, word in enumerate(words, 1)]


@given(i.numbers(4, 6, 1, 20))
def steps_between(numbers):
    """Differences of neighbours."""
    return [b - a for a, b in zip(numbers, numbers[1:])]


@given(i.sentence(3, 4))
def words_backwards(text):
    """Turns every word around, and leaves the words where they are."""
    return " ".join(word[::-1] for word in text.split())


@given(i.word)
def vowels_up(text):
    """Writes the vowels in capitals."""
    return "".join(c.upper() if c in "aeiou" else c for c in text)


@given(i.word)
def letter_places(text):
    """Where each letter stands in the alphabet, from 1."""
    return [ord(c) - 96 for c in text[:5]]


@given(i.integer(1000, 99999))
def digit_sum_and_product(n):
    """Sum and product of the digits that are not zero."""
    product = 1
    for digit in str(n).replace("0", ""):
        product *= int(digit)
    return (sum(int(digit) for digit in str(n)), product)


@given(i.mapping(i.words(3, 4, i.name), i.one_of(*i.CITIES)))
def who_lives_where(homes):
    """Turns a dict around; of two with the same value the last one counts."""
    return {city: name for name, city in homes.items()}


@given(i.numbers(4, 7, 1, 9), i.integer(1, 3))
def rotate(numbers, places):
    """Moves everything to the left; what falls off comes in again."""
    places %= len(numbers)
    return numbers[places:] + numbers[:places]


@given(i.grid(i.integer(2, 3), i.integer(2, 4), i.integer(1, 9)))
def transpose(rows):
    """Rows become columns."""
    return [list(column) for column in zip(*rows)]


@given(i.numbers(5, 7, 1, 30, unique=True))
def two_smallest(numbers):
    """The two smallest, and what they are together."""
    a, b = sorted(numbers)[:2]
    return [a, b, a + b]


@given(i.integer(65, 5000))
def hours_and_minutes(minutes):
    """Minutes as hours and minutes, such as 2h05."""
    return f"{minutes // 60}h{minutes % 60:02d}"


@given(i.letters(5, 9, "abcd"), i.letters(5, 9, "cdef"))
def shared_letters(left, right):
    """Letters of both texts, in the order of the alphabet."""
    return "".join(sorted(set(left) & set(right)))


@given(i.words(4, 6))
def short_ones_first(words):
    """Sorts by length, words of the same length by the alphabet."""
    return sorted(words, key=lambda word: (len(word), word))


@given(i.letters(6, 10, "xyz"))
def where_it_stands(text):
    """Every place of the first letter."""
    return [k for k, c in enumerate(text) if c == text[0]]


@given(i.numbers(4, 6, -9, 9))
def only_losses(changes):
    """Sum and number of the negative entries."""
    losses = [c for c in changes if c < 0]
    return (sum(losses), len(losses))


@given(i.mapping(i.words(3, 5), i.integer(1, 20)), i.integer(5, 15))
def affordable(prices, budget):
    """What costs no more than the budget, by the alphabet."""
    return sorted(thing for thing, price in prices.items() if price <= budget)


@given(i.word)
def vowel_skeleton(text):
    """Hides every consonant."""
    return "".join(c if c in "aeiou" else "." for c in text)


@given(i.name, i.name, i.integer(1000, 2999))
def user_name(first, last, year):
    """A user name from a person's names and a year."""
    return first[0].lower() + last.lower() + str(year)[-2:]


@given(i.numbers(4, 6, 1, 15), i.integer(2, 4))
def every_kth_sum(numbers, k):
    """Sum of every k-th number, the first one included, times k."""
    return k * sum(numbers[::k])


@given(i.words(3, 5, i.short_word))
def ladder(words):
    """Glues each word to the one after it."""
    return [a + b for a, b in zip(words, words[1:])]


@given(i.sentence(3, 4), i.one_of("-", "_", "/", ":"))
def slug(title, glue):
    """The longer words of a title, glued together."""
    return glue.join(word for word in title.split() if len(word) > 5) + glue


@given(i.numbers(3, 5, 1, 6), i.numbers(3, 5, 1, 6))
def dot_product(left, right):
    """Products of what stands in the same place, summed."""
    return sum(a * b for a, b in zip(left, right))


@given(i.listing(3, 4, i.pair(i.name, i.integer(1, 99))))
def podium(results):
    """The names of the two with most points, the best one first."""
    ranked = sorted(results, key=lambda result: -result[1])
    return [name for name, points in ranked[:2]]


@given(i.integer(3, 30), i.integer(3, 30))
def clock(hours, later):
    """What a clock of twelve hours shows some hours later."""
    shown = (hours + later) % 12
    return f"{shown or 12} o'clock"


# A loop, a dict that grows, a first recursion -----------------------------------------------------------------------


@given(i.letters(5, 8, "abc"))
def count_letters(text):
    """How often each letter occurs."""
    counts = {}
    for c in text:
        counts[c] = counts.get(c, 0) + 1
    return counts


@given(i.numbers(4, 6, 1, 12))
def running_total(numbers):
    """Sums of all numbers so far."""
    total, sums = 0, []
    for n in numbers:
        total += n
        sums.append(total)
    return sums


@given(i.runs(3, 5, "abcd"))
def run_lengths(text):
    """Runs of equal letters as letter and length."""
    found = []
    for c in text:
        if found and found[-1][0] == c:
            found[-1][1] += 1
        else:
            found.append([c, 1])
    return found


@given(i.words(4, 6, i.one_of("apple", "anchor", "banana", "basket", "bottle", "candle", "carpet", "cheese", "meadow")))
def by_first_letter(words):
    """Groups words by their first letter."""
    groups = {}
    for word in words:
        groups.setdefault(word[0], []).append(word)
    return groups


@given(i.pool(6, 9, 1, 2, 3, 4, 5))
def keep_first(numbers):
    """Drops what was there before."""
    kept = []
    for n in numbers:
        if n not in kept:
            kept.append(n)
    return kept


@given(i.word, i.integer(1, 9))
def caesar(text, shift):
    """Moves every letter on in the alphabet."""
    result = ""
    for c in text:
        result += chr((ord(c) - 97 + shift) % 26 + 97)
    return result


@given(i.integer(5, 60))
def halve_or_triple(n):
    """The way down to 1: halve the even, triple the odd and add one; at most six steps."""
    way = []
    while n != 1 and len(way) < 6:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        way.append(n)
    return way


@given(i.integer(40, 900), i.integer(12, 90))
def greatest_divisor(a, b):
    """Euclid's algorithm, with the number of its turns."""
    turns = 0
    while b:
        a, b = b, a % b
        turns += 1
    return (a, turns)


@given(i.integer(12, 400))
def prime_factors(n):
    """Prime factors, the smallest first."""
    factors, p = [], 2
    while p * p <= n:
        while n % p == 0:
            factors.append(p)
            n //= p
        p += 1
    return factors + [n] if n > 1 else factors


@given(i.tree(3, i.integer(1, 9)))
def deep_sum(items):
    """Sum of a nested list, every level down counted twice as much."""
    total = 0
    for item in items:
        total += 2 * deep_sum(item) if isinstance(item, list) else item
    return total


@given(i.tree(3, i.short_word))
def flatten(items):
    """All that lies in a nested list, in one list."""
    flat = []
    for item in items:
        if isinstance(item, list):
            flat += flatten(item)
        else:
            flat.append(item)
    return flat


@given(i.letters(8, 14, "()"))
def unmatched(text):
    """How many brackets have no partner: (closing, opening)."""
    opened = lost = 0
    for c in text:
        if c == "(":
            opened += 1
        elif opened:
            opened -= 1
        else:
            lost += 1
    return (lost, opened)


@given(i.listing(4, 6, i.one_of("up", "up 2", "down", "left", "right 3")))
def walk(commands):
    """Where a walker ends."""
    x = y = 0
    for command in commands:
        word, _, count = command.partition(" ")
        length = int(count or 1)
        if word == "up":
            y += length
        elif word == "down":
            y -= length
        elif word == "left":
            x -= length
        else:
            x += length
    return (x, y)


@given(i.listing(4, 6, i.one_of("2", "3", "5", "7", "add", "mul", "dup")))
def stack_machine(program):
    """Runs a program for a stack: numbers are pushed, `add`, `mul` and `dup` work on the top."""
    stack = [1]
    for word in program:
        if word == "dup":
            stack.append(stack[-1])
        elif word in ("add", "mul"):
            if len(stack) > 1:
                a, b = stack.pop(), stack.pop()
                stack.append(a + b if word == "add" else a * b)
        else:
            stack.append(int(word))
    return stack


@given(i.ascending(3, 4, 1, 20), i.ascending(3, 4, 1, 20))
def merge(left, right):
    """Merges two sorted lists."""
    merged = []
    while left and right:
        if left[0] <= right[0]:
            merged.append(left[0])
            left = left[1:]
        else:
            merged.append(right[0])
            right = right[1:]
    return merged + left + right


@given(i.integer(10, 200), i.integer(3, 9))
def in_base(n, base):
    """The digits of a number in another base, the highest first."""
    digits = []
    while n:
        n, digit = divmod(n, base)
        digits.insert(0, digit)
    return digits


@given(i.listing(3, 5, i.pair(i.one_of("ann", "bob", "cid"), i.integer(1, 30))))
def balances(payments):
    """What each person paid more (or less) than ten."""
    totals = {}
    for person, amount in payments:
        totals[person] = totals.get(person, -10) + amount
    return totals


@given(i.words(3, 4), i.integer(12, 18))
def wrapped(words, width):
    """Fills lines with words, as many as fit."""
    lines, line = [], ""
    for word in words:
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return lines + [line]


@given(i.numbers(5, 8, 1, 9))
def rising_run(numbers):
    """The longest run that rises."""
    best, run = [], []
    for n in numbers:
        run = run + [n] if run and n > run[-1] else [n]
        if len(run) > len(best):
            best = run
    return best


@given(i.integer(3, 7), i.integer(1, 5), i.integer(2, 6))
def like_fibonacci(count, a, b):
    """A sequence in which each member is the sum of the two before it."""
    sequence = [a, b]
    while len(sequence) < count:
        sequence.append(sequence[-1] + sequence[-2])
    return sequence


@given(i.integer(2, 40))
def roman(n):
    """A small number in Roman numerals."""
    text = ""
    for value, sign in ((40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I")):
        while n >= value:
            text += sign
            n -= value
    return text


@given(i.word)
def telephone_keys(text):
    """The keys of a telephone that spell a word."""
    keys = {}
    for digit, group in enumerate(["abc", "def", "ghi", "jkl", "mno", "pqrs", "tuv", "wxyz"], 2):
        for c in group:
            keys[c] = str(digit)
    return "".join(keys[c] for c in text)


@given(i.numbers(4, 6, 1, 30), i.integer(5, 25))
def partition(numbers, pivot):
    """What is smaller, and what is not, each in its order."""
    small, large = [], []
    for n in numbers:
        (small if n < pivot else large).append(n)
    return [small, large]


@given(i.integer(20, 99))
def change(cents):
    """Coins for an amount, as few as the greedy way gives."""
    coins = {}
    for coin in (50, 20, 10, 5, 2, 1):
        if cents >= coin:
            coins[coin], cents = divmod(cents, coin)
    return coins


@given(i.letters(5, 7, "abcde"), i.letters(5, 7, "abcde"))
def bulls_and_cows(secret, guess):
    """Right letters in their place, and right letters elsewhere."""
    bulls = sum(a == b for a, b in zip(secret, guess))
    shared = sum(min(secret.count(c), guess.count(c)) for c in set(guess))
    return f"{bulls}A{shared - bulls}B"


@given(i.integer(2, 5), i.short_word)
def triangle(height, text):
    """A triangle of a text's beginnings, the last line first."""
    rows = []
    for k in range(height):
        rows.append((text * 2)[: k + 1].rjust(height, "."))
    return rows[::-1]


# Small algorithms ---------------------------------------------------------------------------------------------------


@given(i.numbers(5, 6, 1, 20, unique=True))
def insertion_sort_moves(numbers):
    """Sorts by insertion; the result, and how often two neighbours were swapped."""
    numbers, moves = list(numbers), 0
    for end in range(1, len(numbers)):
        k = end
        while k and numbers[k - 1] > numbers[k]:
            numbers[k - 1], numbers[k] = numbers[k], numbers[k - 1]
            moves += 1
            k -= 1
    return (numbers, moves)


@given(i.ascending(7, 10, 1, 60), i.integer(1, 60))
def binary_search_path(numbers, wanted):
    """The numbers that a binary search looks at."""
    low, high, seen = 0, len(numbers), []
    while low < high:
        middle = (low + high) // 2
        seen.append(numbers[middle])
        if numbers[middle] == wanted:
            break
        if numbers[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return seen


@given(i.integer(15, 50))
def sieve(limit):
    """Primes up to a limit, by striking out multiples."""
    numbers = list(range(2, limit + 1))
    primes = []
    while numbers:
        p = numbers[0]
        primes.append(p)
        numbers = [n for n in numbers if n % p]
    return primes[-4:]


@given(i.letters(2, 4, "abc"), i.letters(3, 5, "abc"))
def edit_distance(left, right):
    """The last row of the table of edit distances (Levenshtein)."""
    row = list(range(len(right) + 1))
    for k, a in enumerate(left, 1):
        new = [k]
        for j, b in enumerate(right, 1):
            new.append(min(new[-1] + 1, row[j] + 1, row[j - 1] + (a != b)))
        row = new
    return row


@given(i.letters(2, 4, "abcd"), i.letters(3, 4, "abcd"))
def common_subsequence(left, right):
    """The longest text that both contain, in order but with gaps."""
    if not left or not right:
        return ""
    if left[0] == right[0]:
        return left[0] + common_subsequence(left[1:], right[1:])
    return max(common_subsequence(left[1:], right), common_subsequence(left, right[1:]), key=len)


@given(i.words(3, 3, i.one_of("a", "b", "c", "x", "y", "1", "2")))
def permutations(letters):
    """All orders of the letters."""
    if len(letters) <= 1:
        return ["".join(letters)]
    found = []
    for k, first in enumerate(letters):
        for rest in permutations(letters[:k] + letters[k + 1 :]):
            found.append(first + rest)
    return found


@given(i.integer(2, 4))
def hanoi(discs):
    """The moves of the towers of Hanoi."""

    def move(n, start, end, spare):
        if n == 0:
            return []
        return move(n - 1, start, spare, end) + [start + end] + move(n - 1, spare, end, start)

    return " ".join(move(discs, "A", "C", "B"))


@given(i.integer(4, 9), i.integer(2, 5))
def josephus(people, step):
    """The order in which people leave a circle when every k-th goes."""
    circle, out, place = list(range(1, people + 1)), [], 0
    while circle:
        place = (place + step - 1) % len(circle)
        out.append(circle.pop(place))
    return out


@given(i.listing(4, 6, i.pair(i.integer(0, 12), i.integer(13, 25))))
def merge_intervals(spans):
    """Joins spans that overlap."""
    merged = []
    for start, end in sorted((a, a + b % 5 + 1) for a, b in spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


@given(i.numbers(4, 5, 1, 9), i.integer(8, 20))
def subset_sums(numbers, limit):
    """All sums up to a limit that some of the numbers have."""
    sums = {0}
    for n in numbers:
        sums |= {s + n for s in sums if s + n <= limit}
    return sorted(sums)


@given(i.integer(6, 15), i.one_of((2, 5), (3, 4), (1, 4, 5), (2, 3)))
def ways_to_pay(amount, coins):
    """In how many ways coins make each amount up to the given one."""
    ways = [1] + [0] * amount
    for coin in coins:
        for total in range(coin, amount + 1):
            ways[total] += ways[total - coin]
    return ways[-5:]


@given(i.grid(i.one_of(3), i.integer(3, 4), i.integer(1, 9)))
def spiral(rows):
    """Reads a grid in a spiral from the upper left corner."""
    read = []
    while rows:
        read += rows[0]
        rows = [list(column) for column in zip(*rows[1:])][::-1]
    return read


@given(i.letters(5, 8, "01"), i.integer(2, 3))
def game_of_life_line(cells, turns):
    """A row of cells: one lives on when exactly one of its neighbours lives."""
    for _ in range(turns):
        padded = f"0{cells}0"
        cells = "".join(str(int(padded[k - 1] != padded[k + 1])) for k in range(1, len(padded) - 1))
    return cells


@given(i.listing(4, 6, i.pair(i.one_of("A", "B", "C", "D"), i.one_of("B", "C", "D", "E"))))
def reachable(roads):
    """Cities that can be reached from A, in the order of a breadth-first search."""
    seen, queue = ["A"], ["A"]
    while queue:
        here = queue.pop(0)
        for start, end in roads:
            if start == here and end not in seen:
                seen.append(end)
                queue.append(end)
    return "".join(seen)


@given(i.mapping(i.words(4, 5, i.one_of("tea", "cup", "water", "fire", "wood")), i.one_of("wood", "axe", "well")))
def build_order(needs):
    """In which order things can be made when each needs one other."""
    order = []

    def make(thing):
        if thing in order:
            return
        if thing in needs and needs[thing] != thing:
            make(needs[thing])
        order.append(thing)

    for thing in needs:
        make(thing)
    return order


@given(i.listing(5, 7, i.one_of("3", "4", "8", "+", "*", "-", "2")))
def left_to_right(tokens):
    """A pocket calculator: works from the left, starts at 0 and skips a sign after a sign."""
    value, sign = 0, "+"
    for token in tokens:
        if not token.isdigit():
            sign = token
        elif sign == "+":
            value += int(token)
        elif sign == "-":
            value -= int(token)
        else:
            value *= int(token)
    return value


@given(i.numbers(5, 7, -9, 9))
def best_stretch(changes):
    """The stretch of neighbours with the largest sum, and that sum."""
    best, start, total, here = (changes[0], 0, 1), 0, 0, 0
    for here, change in enumerate(changes):
        if total <= 0:
            start, total = here, 0
        total += change
        if total > best[0]:
            best = (total, start, here + 1)
    return [changes[best[1] : best[2]], best[0]]


@given(i.integer(3, 6))
def pascal(rows):
    """A row of Pascal's triangle, and the sum of all rows above it."""
    row, above = [1], 0
    for _ in range(rows):
        above += sum(row)
        row = [a + b for a, b in zip([0] + row, row + [0])]
    return (row, above)


@given(i.integer(1, 5), i.integer(2, 4))
def say_it(seed, turns):
    """Reads a number aloud, again and again: 1, 11, 21, 1211."""
    text = str(seed)
    for _ in range(turns):
        said, k = "", 0
        while k < len(text):
            end = k
            while end < len(text) and text[end] == text[k]:
                end += 1
            said += str(end - k) + text[k]
            k = end
        text = said
    return text


@given(i.listing(6, 8, i.one_of("a", "b", "c", "d")), i.integer(2, 3))
def recently_used(keys, size):
    """What a cache holds that forgets what was not used for longest, and how often it had what was asked for."""
    cache, hits = [], 0
    for key in keys:
        if key in cache:
            hits += 1
            cache.remove(key)
        elif len(cache) == size:
            cache.pop(0)
        cache.append(key)
    return (cache, hits)


@given(i.words(3, 5, i.one_of("tan", "ant", "nat", "tea", "eat", "ate", "god", "dog", "act", "cat")))
def anagrams(words):
    """Words of the same letters together, the largest group first."""
    groups = {}
    for word in words:
        groups.setdefault("".join(sorted(word)), []).append(word)
    return sorted((sorted(group) for group in groups.values()), key=lambda group: (-len(group), group))


@given(i.letters(3, 4, "abc"), i.letters(8, 11, "abc"))
def find_all(needle, text):
    """Places where a text begins, or ends, with the first two letters of another."""
    found = []
    for k in range(len(text) - 1):
        piece = text[k : k + 2]
        if piece == needle[:2]:
            found.append(k)
        elif piece == needle[-2:]:
            found.append(-k)
    return found


@given(i.numbers(6, 8, 1, 20, unique=True))
def heap_of(numbers):
    """Builds a heap by letting every number rise."""
    heap = []
    for n in numbers:
        heap.append(n)
        k = len(heap) - 1
        while k and heap[(k - 1) // 2] > heap[k]:
            heap[(k - 1) // 2], heap[k] = heap[k], heap[(k - 1) // 2]
            k = (k - 1) // 2
    return heap


@given(i.numbers(4, 6, 1, 30, unique=True))
def search_tree(numbers):
    """A binary search tree, as nested (left, number, right)."""

    def insert(node, n):
        if node is None:
            return (None, n, None)
        left, here, right = node
        if n < here:
            return (insert(left, n), here, right)
        return (left, here, insert(right, n))

    root = None
    for n in numbers:
        root = insert(root, n)
    return root


@given(i.sentence(2, 3, i.short_word), i.word)
def vigenere(text, key):
    """A cipher that moves every letter by the letter of a key; blanks stay."""
    result, k = "", 0
    for c in text:
        if c == " ":
            result += c
        else:
            result += chr((ord(c) + ord(key[k % len(key)]) - 194) % 26 + 97)
            k += 1
    return result


@given(i.grid(i.one_of(2), i.one_of(2, 3), i.one_of(".", ".", "#")))
def count_neighbours(rows):
    """Mines around every free field; `#` is a mine."""
    shown = []
    for y, row in enumerate(rows):
        line = ""
        for x, cell in enumerate(row):
            near = sum(
                rows[b][a] == "#"
                for b in range(max(0, y - 1), min(len(rows), y + 2))
                for a in range(max(0, x - 1), min(len(row), x + 2))
            )
            line += "#" if cell == "#" else str(near)
        shown.append(line)
    return shown


@given(i.integer(2, 20), i.integer(5, 19), i.integer(7, 30))
def power_by_squares(base, exponent, modulus):
    """A power, modulo a number, by repeated squaring; and the bits of the exponent."""
    result, bits = 1, ""
    while exponent:
        if exponent % 2:
            result = result * base % modulus
        base = base * base % modulus
        bits = str(exponent % 2) + bits
        exponent //= 2
    return (result, bits)


@given(i.listing(3, 4, i.pair(i.one_of("pen", "mug", "hat", "map"), i.pair(i.integer(1, 5), i.integer(2, 9)))))
def receipt(items):
    """A bill: what is bought in threes costs two, and large bills get a note."""
    lines, total = [], 0
    for thing, (count, price) in items:
        cost = (count - count // 3) * price
        total += cost
        lines.append(f"{thing} {cost}")
    if total > 40:
        lines.append("thank you")
    return lines + [str(total)]


@given(i.listing(5, 7, i.one_of("push 3", "push 4", "pop", "peek", "size", "push 9")))
def queue_log(commands):
    """What a queue answers to commands."""
    queue, answers = [], []
    for command in commands:
        verb, *rest = command.split()
        if verb == "push":
            queue.append(int(rest[0]))
        elif verb == "size":
            answers.append(len(queue))
        elif not queue:
            answers.append("empty")
        else:
            answers.append(queue.pop(0) if verb == "pop" else queue[0])
    return answers
