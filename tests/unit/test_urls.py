"""The servers' addresses: what is understood, what is refused, and that no password is shown."""

from __future__ import annotations

import pytest

from flashsale.urls import exposures, parse_broker_urls, parse_database_url


class TestPostgreSQL:
    def test_a_full_address_gives_libpq_its_parts(self) -> None:
        address = parse_database_url("postgresql://app:secret@db.example:6432/flashsale")
        assert address.is_postgres
        assert address.name == "flashsale"
        assert address.parameters == {
            "user": "app",
            "password": "secret",
            "host": "db.example",
            "port": "6432",
        }

    def test_the_pool_has_30_connections_and_20_seconds_unless_told_otherwise(self) -> None:
        address = parse_database_url("postgresql://db/flashsale")
        assert (address.pool_size, address.pool_timeout_seconds) == (30, 20.0)

    def test_the_keys_of_prisma_s_pool_are_the_pool_s_and_never_libpq_s(self) -> None:
        address = parse_database_url("postgres://db/flashsale?connection_limit=5&pool_timeout=7")
        assert (address.pool_size, address.pool_timeout_seconds) == (5, 7.0)
        assert address.parameters == {"host": "db", "port": "5432"}

    def test_prisma_s_schema_is_the_search_path(self) -> None:
        address = parse_database_url("postgresql://db/flashsale?schema=sale")
        assert address.parameters["options"] == '-c search_path="sale"'

    def test_prisma_s_schema_joins_the_options_that_are_there(self) -> None:
        address = parse_database_url("postgresql://db/x?options=-c%20geqo%3Doff&schema=sale")
        assert address.parameters["options"] == '-c geqo=off -c search_path="sale"'

    @pytest.mark.parametrize(
        ("schema", "option"),
        [
            ("FlashSale", '"FlashSale"'),
            ("my%20shop", r'"my\ shop"'),
            ("a%22b", '"a""b"'),
            ("a%5Cb", r'"a\\b"'),
        ],
    )
    def test_prisma_s_schema_is_a_name_to_the_letter(self, schema: str, option: str) -> None:
        address = parse_database_url(f"postgresql://db/x?schema={schema}")
        assert address.parameters["options"] == f"-c search_path={option}"

    def test_other_keys_go_to_libpq_as_they_are(self) -> None:
        """A plus sign is no space: libpq does not read forms."""
        address = parse_database_url("postgresql://db/x?sslmode=require&application_name=a+b")
        assert address.parameters["sslmode"] == "require"
        assert address.parameters["application_name"] == "a+b"

    @pytest.mark.parametrize(
        ("hosts", "host", "port"),
        [
            ("a:1,b:2", "a,b", "1,2"),
            ("a,b:2", "a,b", "5432,2"),
            ("[::1]:6432", "::1", "6432"),
            ("[::1],[fe80::2]:7", "::1,fe80::2", "5432,7"),
            ("%2Fvar%2Frun%2Fpostgresql", "/var/run/postgresql", "5432"),
        ],
    )
    def test_several_hosts_ipv6_and_sockets_are_understood(
        self, hosts: str, host: str, port: str
    ) -> None:
        address = parse_database_url(f"postgresql://app:secret@{hosts}/flashsale")
        assert (address.parameters["host"], address.parameters["port"]) == (host, port)

    @pytest.mark.parametrize(
        ("url", "shown", "hosts"),
        [
            (
                "postgresql://app:secret@a:1,b/x",
                "postgresql://app@a:1,b:5432/x",
                [{"host": "a", "port": "1"}, {"host": "b", "port": "5432"}],
            ),
            (
                "postgresql:///x?host=a,b&port=7",
                "postgresql://a:7,b:7/x",
                [{"host": "a", "port": "7"}, {"host": "b", "port": "7"}],
            ),
            (
                "postgresql://a,b/x?hostaddr=10.0.0.1,10.0.0.2",
                "postgresql://a:5432,b:5432/x",
                [
                    {"host": "a", "hostaddr": "10.0.0.1", "port": "5432"},
                    {"host": "b", "hostaddr": "10.0.0.2", "port": "5432"},
                ],
            ),
            ("postgresql:///x", "postgresql://localhost/x", [{}]),
        ],
    )
    def test_hosts_are_known_one_by_one(
        self, url: str, shown: str, hosts: list[dict[str, str]]
    ) -> None:
        address = parse_database_url(url)
        assert str(address) == shown
        assert address.hosts == hosts

    def test_as_many_ports_as_hosts_are_wanted(self) -> None:
        with pytest.raises(ValueError, match="more hosts than ports"):
            parse_database_url("postgresql:///x?host=a,b,c&port=1,2")

    def test_a_percent_encoded_password_arrives_decoded(self) -> None:
        address = parse_database_url("postgresql://us%40er:%3F%23%2F%40%3A%25+@db/flashsale")
        assert (address.parameters["user"], address.parameters["password"]) == ("us@er", "?#/@:%+")

    def test_a_bare_at_sign_or_colon_in_a_password_is_harmless(self) -> None:
        address = parse_database_url("postgresql://app:p@ss:word@db/flashsale")
        assert (address.parameters["password"], address.parameters["host"]) == ("p@ss:word", "db")

    def test_neither_str_nor_repr_shows_a_password(self) -> None:
        address = parse_database_url(
            "postgresql://app:canary@db:6432/flashsale?sslpassword=canary&passfile=canary"
        )
        assert str(address) == "postgresql://app@db:6432/flashsale"
        assert "canary" not in repr(address)

    @pytest.mark.parametrize("where", ["db", "db:6432", ""])
    def test_str_shows_where_the_database_is_without_a_user_too(self, where: str) -> None:
        shown = str(parse_database_url(f"postgresql://{where}/flashsale"))
        assert shown.startswith(f"postgresql://{where or 'localhost'}")

    @pytest.mark.parametrize("character", ["/", "?", "#"])
    @pytest.mark.parametrize("head", ["canary", "12", ""])
    @pytest.mark.parametrize("tail", ["canary", "canary=canary", "canary&x=1", "a/canary?canary=1"])
    def test_a_password_cut_short_by_a_bare_delimiter_is_refused_and_not_shown(
        self, head: str, character: str, tail: str
    ) -> None:
        """Digits before the delimiter would otherwise pass for a port, the rest for a name."""
        with pytest.raises(ValueError, match="%2F, %3F, %23") as caught:
            parse_database_url(f"postgresql://app:{head}{character}{tail}@db/flashsale")
        assert "canary" not in str(caught.value)

    @pytest.mark.parametrize(
        ("url", "problem"),
        [
            ("", "must start with"),
            ("mysql://app:canary@db/flashsale", "must start with"),
            ("app:canary@db/flashsale", "must start with"),
            ("postgresql://app:canary@db", "names no database"),
            ("postgresql://app:canary@db/", "names no database"),
            ("postgresql://app:canary%00@db/x", "holds a NUL"),
            ("postgresql://app:canary@db:canary/x", "port is not a number"),
            ("postgresql://app:canary@[::1/x", "is not a URL"),
            ("postgresql://app:canary@db/x?connection_limit=0", "connection_limit must be"),
            ("postgresql://app:canary@db/x?connection_limit=10001", "connection_limit must be"),
            ("postgresql://app:canary@db/x?connection_limit=0000000019999", "connection_limit"),
            ("postgresql://app:canary@db/x?connection_limit=", "connection_limit must be"),
            ("postgresql://app:canary@db/x?pool_timeout=-1", "pool_timeout must be"),
            ("postgresql://app:canary@db/x?pool_timeout=canary", "pool_timeout must be"),
            ("postgresql://app:canary@db/x?pgbouncer=true", "libpq knows no option 'pgbouncer'"),
            ("postgresql://db/x?dsn=host%3Dcanary", "no option 'dsn'"),
            ("postgresql://db/x?dbname=other", "named in the path"),
            ("postgresql://db/x?database=other", "named in the path"),
            ("postgresql://db/x?Canary-1=1", "its name is not shown"),
            ("postgresql://db/x?password=a&canary", "its name is not shown"),
        ],
    )
    def test_a_wrong_address_is_refused_without_showing_a_secret(
        self, url: str, problem: str
    ) -> None:
        with pytest.raises(ValueError, match=problem) as caught:
            parse_database_url(url)
        assert "canary" not in str(caught.value).lower()
        assert caught.value.__cause__ is None


class TestSQLite:
    @pytest.mark.parametrize(
        ("url", "name"),
        [
            ("sqlite:///flashsale.db", "flashsale.db"),
            ("sqlite:////var/lib/flashsale.db", "/var/lib/flashsale.db"),
            ("sqlite:///a%20b%23.db", "a b#.db"),
        ],
    )
    def test_a_file_is_named_after_three_slashes(self, url: str, name: str) -> None:
        address = parse_database_url(url)
        assert (address.is_postgres, address.name, dict(address.parameters)) == (False, name, {})
        assert str(address) == f"sqlite:///{name}"

    @pytest.mark.parametrize(
        "url",
        [
            *("sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite://flashsale.db"),
            *("sqlite:///flashsale.db?mode=ro", "sqlite:///flash#sale.db"),
        ],
    )
    def test_anything_but_a_file_is_refused(self, url: str) -> None:
        with pytest.raises(ValueError, match="an SQLite database"):
            parse_database_url(url)


class TestRabbitMQ:
    def test_nodes_are_split_at_semicolons_in_their_order(self) -> None:
        nodes = parse_broker_urls(" amqp://u:p@a:5672/v?heartbeat=9 ;amqps://u:p@[::1];; ")
        assert nodes == ("amqp://u:p@a:5672/v?heartbeat=9", "amqps://u:p@[::1]")

    @pytest.mark.parametrize("urls", ["", " ; "])
    def test_no_node_is_refused(self, urls: str) -> None:
        with pytest.raises(ValueError, match="names no node"):
            parse_broker_urls(urls)

    @pytest.mark.parametrize(
        "url",
        [
            *("canary", "http://u:canary@a", "amqp:u:canary@a", "amqp://", "amqp://u:canary@"),
            *("amqp://u:canary@a:0", "amqp://u:canary@a:70000", "amqp://u:canary@a:canary"),
            *("amqp://u:canary@[::1", "amqp://u:12;canary@a"),
        ],
    )
    def test_a_wrong_node_is_refused_without_showing_a_secret(self, url: str) -> None:
        with pytest.raises(ValueError, match="must be amqp:// or amqps://") as caught:
            parse_broker_urls(url)
        assert "canary" not in str(caught.value)

    @pytest.mark.parametrize("character", ["/", "?", "#"])
    @pytest.mark.parametrize("head", ["canary", "12", ""])
    def test_a_password_cut_short_by_a_bare_delimiter_is_refused_and_not_shown(
        self, head: str, character: str
    ) -> None:
        """Otherwise the user would be dialled as a host, and logged as one."""
        with pytest.raises(ValueError, match="%2F, %3F, %23") as caught:
            parse_broker_urls(f"amqp://app:{head}{character}canary@a")
        assert "canary" not in str(caught.value)

    def test_the_wrong_one_of_several_nodes_is_named_by_its_number(self) -> None:
        with pytest.raises(ValueError, match=r"\(number 2 of 3\)"):
            parse_broker_urls("amqp://a;http://u:p@b;amqp://c")


class TestExposures:
    @pytest.mark.parametrize(
        ("database", "broker"),
        [
            ("sqlite:///x.db", "amqp://localhost"),
            ("postgresql://localhost/x", "amqp://127.0.0.1"),
            ("postgresql://[::1]/x", "amqp://[::1]"),
            ("postgresql:///x", "amqps://mq.example"),
            ("postgresql://%2Frun%2Fpostgresql/x", "amqp://127.9.9.9"),
            ("postgresql://db.example/x?sslmode=verify-full", "amqps://mq.example"),
        ],
    )
    def test_nothing_is_exposed_on_this_machine_or_to_a_verified_server(
        self, database: str, broker: str
    ) -> None:
        assert exposures(parse_database_url(database), [broker]) == []

    @pytest.mark.parametrize("option", ["", "?sslmode=require", "?sslmode=verify-ca"])
    def test_a_database_server_that_could_be_another_one_is_told(self, option: str) -> None:
        address = parse_database_url(f"postgresql://app:canary@localhost,db.example/x{option}")
        (told,) = exposures(address, [])
        assert "sslmode=verify-full" in told
        assert "canary" not in told

    def test_each_node_in_plain_text_is_told_without_its_password(self) -> None:
        nodes = ["amqp://u:canary@rabbitmq:5672", "amqps://u:canary@safe", "amqp://10.0.0.1"]
        told = exposures(parse_database_url("sqlite:///x.db"), nodes)
        assert [text.split()[2] for text in told] == ["rabbitmq", "10.0.0.1"]
        assert "canary" not in "".join(told)
