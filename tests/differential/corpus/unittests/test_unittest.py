import asyncio
import unittest
import warnings

import pytest


def setUpModule():
    print("setUpModule")


def tearDownModule():
    print("tearDownModule")


class Everything(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        print("setUpClass")
        cls.shared = 1
        cls.addClassCleanup(lambda: print("class cleanup"))

    @classmethod
    def tearDownClass(cls):
        print("tearDownClass")

    def setUp(self):
        print("setUp", self.id())
        self.addCleanup(lambda: print("cleanup"))

    def tearDown(self):
        print("tearDown")

    def test_passes(self):
        self.assertEqual(self.shared, 1)

    def test_fails(self):
        self.assertEqual([1, 2, 3], [1, 2, 4])

    def test_errors(self):
        raise RuntimeError("an error")

    @unittest.skip("a reason")
    def test_skipped(self):
        pass

    def test_skips_itself(self):
        raise unittest.SkipTest("itself")

    @unittest.expectedFailure
    def test_expected_failure(self):
        self.fail("expected")

    @unittest.expectedFailure
    def test_unexpected_success(self):
        pass

    def test_subtests(self):
        for number in range(4):
            with self.subTest("a message", number=number):
                self.assertNotEqual(number % 2, 1)

    def test_skipped_subtest(self):
        with self.subTest(i=1):
            self.skipTest("within")
        with self.subTest(i=2):
            pass

    def test_subtest_and_failure(self):
        with self.subTest(i=1):
            self.fail("in the subtest")
        self.fail("in the test")

    def test_warns(self):
        warnings.warn("from unittest", UserWarning)
        with self.assertWarns(DeprecationWarning):
            warnings.warn("old", DeprecationWarning)

    def test_logs(self):
        with self.assertLogs("differential", "INFO") as logs:
            import logging

            logging.getLogger("differential").info("hello")
        self.assertEqual(len(logs.output), 1)


class BrokenClass(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        raise RuntimeError("setUpClass fails")

    def test_one(self):
        pass

    def test_two(self):
        pass


class SkippedClass(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        raise unittest.SkipTest("the class")

    def test_one(self):
        pass


class TornClass(unittest.TestCase):
    @classmethod
    def tearDownClass(cls):
        raise RuntimeError("tearDownClass fails")

    def test_one(self):
        pass

    def test_two(self):
        pass


class TornTest(unittest.TestCase):
    def tearDown(self):
        raise RuntimeError("tearDown fails")

    def test_one(self):
        pass

    def test_two(self):
        self.fail("and the test too")


@pytest.mark.usefixtures("used")
class WithFixtures(unittest.TestCase):
    @pytest.fixture(scope="class")
    def used(self):
        print("used up")
        yield
        print("used down")

    @pytest.fixture(autouse=True)
    def given(self, tmp_path):
        self.path = tmp_path

    def test_path(self):
        self.assertTrue(self.path.is_dir())


class Asynchronous(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        await asyncio.sleep(0)
        print("asyncSetUp")

    async def test_awaits(self):
        await asyncio.sleep(0)

    async def test_fails(self):
        await asyncio.sleep(0)
        self.assertTrue(False)
