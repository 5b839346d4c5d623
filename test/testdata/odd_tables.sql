-- Tables and columns with every kind of name there may be, and with what stands in the way of a mapping.

CREATE TABLE users (id BIGINT AUTO_INCREMENT PRIMARY KEY, mail VARCHAR(50) NOT NULL UNIQUE,
	created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, changed_at DATETIME ON UPDATE CURRENT_TIMESTAMP);
CREATE TABLE order_items (order_id BIGINT, line SMALLINT UNSIGNED, text VARCHAR(20), PRIMARY KEY (order_id, line));
CREATE TABLE labels (lang VARCHAR(5) COLLATE utf8mb4_bin, name VARCHAR(40), text TEXT, PRIMARY KEY (lang, name));
CREATE TABLE kinds (kind ENUM('a','b') PRIMARY KEY, day DATE, doc JSON, raw BLOB, flags BIT(3));
CREATE TABLE days (day DATE, unit UUID, ip INET6, n DECIMAL(6,2), PRIMARY KEY (day, unit, ip, n));
CREATE TABLE parts (id INT PRIMARY KEY) PARTITION BY HASH (id) PARTITIONS 3;
CREATE TABLE versions (id INT PRIMARY KEY, n INT) WITH SYSTEM VERSIONING;
CREATE TABLE `select` (`order` INT PRIMARY KEY, `group` INT NOT NULL DEFAULT 3);
CREATE TABLE UPPER (ID INT PRIMARY KEY);
CREATE TABLE upper (id INT PRIMARY KEY);
CREATE TABLE `it's a "table"` (`the id` INT PRIMARY KEY, `a``b` INT, `c\d` INT);
CREATE TABLE `back``tick\` (`i``d` INT PRIMARY KEY);
CREATE TABLE `été à Köln` (`größe` INT PRIMARY KEY, `名前` TEXT);
CREATE TABLE `таблица` (id INT PRIMARY KEY);
CREATE TABLE `日本` (id INT PRIMARY KEY);
CREATE TABLE `line
break	and tab` (`i
d` INT PRIMARY KEY);
CREATE TABLE `${HOME}` (`$$x` INT PRIMARY KEY, `${PATH}` INT, geo POINT);
CREATE TABLE `{braces}` (id INT PRIMARY KEY);
CREATE TABLE `; DROP TABLE users; -- #` (id INT PRIMARY KEY);
CREATE TABLE `a_table_whose_name_is_as_long_as_mysql_takes_it_at_64_characters` (`a_table_whose_name_is_as_long_as_mysql_takes_it_at_64_characters` INT PRIMARY KEY);
CREATE TABLE `a_table_whose_name_is_as_long_as_mysql_takes_it_at_64_character:` (id INT PRIMARY KEY);
CREATE TABLE a (id VARCHAR(9) PRIMARY KEY);
CREATE TABLE `a:b` (id INT PRIMARY KEY);
CREATE TABLE `a_b` (id INT PRIMARY KEY);
CREATE TABLE `a b` (id INT PRIMARY KEY);
CREATE TABLE keyrow (id INT PRIMARY KEY);
CREATE TABLE floats (f DOUBLE PRIMARY KEY, id INT NOT NULL UNIQUE);
CREATE TABLE triggered (id INT PRIMARY KEY, n INT);
CREATE TRIGGER twice BEFORE INSERT ON triggered FOR EACH ROW SET NEW.n = NEW.n * 2;
CREATE TABLE generated (id INT PRIMARY KEY, n INT, twice INT AS (n * 2) VIRTUAL, kept INT AS (n * 3) STORED);
CREATE TABLE places (id INT PRIMARY KEY, name VARCHAR(9), at POINT);
CREATE TABLE areas (id INT PRIMARY KEY, name VARCHAR(9), shape POLYGON NOT NULL);
CREATE TABLE legacy (id INT PRIMARY KEY) ENGINE=MyISAM;

-- These cannot be mapped.

CREATE TABLE `with.dot` (id INT PRIMARY KEY);
CREATE TABLE keyless (id INT, UNIQUE (id));
CREATE TABLE prefixes (name TEXT, PRIMARY KEY (name(20)));
CREATE TABLE only_floats (f DOUBLE PRIMARY KEY);
CREATE TABLE brace (`a}:{b` INT PRIMARY KEY);
CREATE TABLE computed (n INT, id INT AS (n * 2) STORED UNIQUE);
CREATE VIEW recent AS SELECT * FROM users;
CREATE TABLE gone (id INT);
CREATE VIEW broken AS SELECT * FROM gone;
DROP TABLE gone;
CREATE SEQUENCE counter;
